"""Terminal transcripts: run their commands and compare what they print."""

import re
import subprocess

TIMEOUT = 60

#: What a transcript shows as it was once.
VARIABLE = {
    r"\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d": "<time>",
    r"\d{4}-\d\d-\d\d \d\d:\d\d": "<time>",
    r"\d\d:\d\d:\d\d": "<time>",
    r"(?<=[\s\"])[\w.-]+:\d+(?=[\s\"])": "<process>",
    r'(?<="revision": )\d+': "<revision>",
    r'(?<="lease": )[\d.]+': "<seconds>",
    r"\d+\.\d+ ?s\b": "<seconds>",
    r"(?<=[\s\"])[\w-]{12}(?=[\s\"])": "<connection>",
    r"\d+ entries": "<entries>",
    r'(?<="checked": )\d+': "<entries>",
}


def replay(transcript, directory, env, where):
    """Run the commands of a transcript; fail where one prints something else."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, expected = split(part)
        printed = run(command, directory, env)
        assert matches(
            expected, printed
        ), f"{where}: $ {command}\nprints\n{printed}\nand not\n{expected}"


def split(part):
    """Return a command, which goes on while a quotation is open, and its output."""
    lines = part.splitlines(keepends=True)
    command = lines.pop(0)
    while command.count('"') % 2 or command.endswith("\\\n"):
        command += lines.pop(0)
    return command, "".join(lines)


def run(command, directory, env):
    """Run a command as a shell does; return what it prints."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        # A reader's loop does not say what was slow.
        env={**env, "PYTHONASYNCIODEBUG": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    return done.stdout


def matches(expected, printed):
    """Whether a text is the expected one, where ``...`` stands for anything.

    Runs of spaces count as one, since columns are as wide as what is in them; times,
    processes and the ids of connections count as equal.
    """
    pattern = ".*?".join(map(re.escape, tidy(expected).split("...")))
    return bool(re.fullmatch(pattern, tidy(printed), re.DOTALL))


def tidy(text):
    """Return a text without what differs each time, and with single spaces."""
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(lines).strip()
