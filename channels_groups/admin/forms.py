"""What the admin asks before it closes or sends, and does when it is answered."""

from __future__ import annotations

from typing import Any, Union

from django import forms

from ..groups import Connection, ConnectionGroup
from ..messages import MAX_REASON, close_message
from ..models import visible

Target = Union[ConnectionGroup, Connection]


class ActionForm(forms.Form):
    """An action on a group or on one connection."""

    #: What it does and did to whom; on a link to it, and on the button that does it.
    does = did = label = yes = ""
    #: What is to be known before one says yes.
    warning = ""
    dangerous = False
    group_permission = connection_permission = ""

    def how(self) -> str:
        """Return what the log says of how it is done."""
        raise NotImplementedError

    async def act(self, target: Target) -> None:
        raise NotImplementedError


class CloseForm(ActionForm):
    """Close, with a code and a reason as WebSocket has them."""

    does, did, label, yes = "Close {}", "Closed {}", "Close", "Yes, close"
    warning = "The clients are disconnected. Nothing keeps them from connecting again."
    dangerous = True
    group_permission, connection_permission = "close_group", "close_connection"

    code = forms.IntegerField(
        required=False, help_text="1000, or from 3000 to 4999. Empty: 1000."
    )
    reason = forms.CharField(
        required=False,
        max_length=MAX_REASON,
        help_text=f"Told to the clients, in up to {MAX_REASON} bytes.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned = {**(super().clean() or {})}
        try:
            close_message("", cleaned.get("code"), cleaned.get("reason"))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error
        return cleaned

    def how(self) -> str:
        code, reason = self.cleaned_data["code"], self.cleaned_data["reason"]
        return f" with code {code or 1000}" + (f": {visible(reason)}" if reason else "")

    async def act(self, target: Target) -> None:
        code, reason = self.cleaned_data["code"], self.cleaned_data["reason"]
        if isinstance(target, ConnectionGroup):
            await target.aclose_all(code, reason or None)
        else:
            await target.aclose(code, reason or None)


class SendForm(ActionForm):
    """Send a text frame."""

    does, did, label, yes = "Send to {}", "Sent to {}", "Send", "Yes, send"
    warning = "It is sent at once and cannot be taken back."
    group_permission = connection_permission = "send_message"

    text = forms.CharField(
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "cols": 60}),
        help_text="Sent as one text frame, as it is: JSON, if your clients read JSON.",
    )

    def clean_text(self) -> str:
        """Return what was typed: a browser makes each new line CRLF."""
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")

    def how(self) -> str:
        return f": {self.cleaned_data['text']}"

    async def act(self, target: Target) -> None:
        await target.asend(self.cleaned_data["text"])


FORMS: dict[str, type[ActionForm]] = {"send": SendForm, "close": CloseForm}
