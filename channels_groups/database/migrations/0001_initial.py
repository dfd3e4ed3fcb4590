import django.db.models.deletion
from django.db import migrations, models

import channels_groups.database.models


class Migration(migrations.Migration):

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Book",
            fields=[
                (
                    "layer",
                    channels_groups.database.models.AsciiField(
                        max_length=100, primary_key=True, serialize=False
                    ),
                ),
                ("epoch", channels_groups.database.models.AsciiField(max_length=32)),
                ("revision", models.BigIntegerField(default=0)),
                ("rebuilding", models.BigIntegerField(default=0)),
                ("void", models.BooleanField(default=False)),
                ("groups", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Node",
            fields=[
                (
                    "id",
                    channels_groups.database.models.AsciiField(
                        max_length=64, primary_key=True, serialize=False
                    ),
                ),
                (
                    "layer",
                    channels_groups.database.models.AsciiField(
                        db_index=True, max_length=100
                    ),
                ),
                ("channel", models.TextField()),
                ("process", models.TextField()),
                ("deadline", models.BigIntegerField()),
                ("evicted_until", models.BigIntegerField(default=0)),
                ("connections", models.BigIntegerField(default=0)),
                ("memberships", models.BigIntegerField(default=0)),
                ("taken", models.TextField(default="[]")),
                ("sequence", models.BigIntegerField(default=0)),
                ("answers", models.TextField(default="[]")),
                ("evicting", models.BigIntegerField(default=0)),
                ("eviction", models.TextField(default="")),
            ],
        ),
        migrations.CreateModel(
            name="Group",
            fields=[
                (
                    "id",
                    models.BigIntegerField(
                        default=channels_groups.database.models.make_id,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("layer", channels_groups.database.models.AsciiField(max_length=100)),
                ("key", channels_groups.database.models.AsciiField(max_length=32)),
                ("name", models.TextField()),
                ("stem", channels_groups.database.models.AsciiField(max_length=100)),
                ("count", models.BigIntegerField(default=0)),
                ("user_count", models.BigIntegerField(default=0)),
                ("told", models.BigIntegerField(default=0)),
                ("revision", models.BigIntegerField(default=0)),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["layer", "count", "id"], name="channels_groups_count"
                    ),
                    models.Index(
                        fields=["layer", "stem", "id"], name="channels_groups_stem"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("layer", "key"), name="channels_groups_group_key"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Part",
            fields=[
                (
                    "id",
                    models.BigIntegerField(
                        default=channels_groups.database.models.make_id,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("count", models.BigIntegerField(default=0)),
                ("told", models.BigIntegerField(default=0)),
                ("entries", models.TextField(default="[]")),
                (
                    "group",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="channels_groups_database.group",
                    ),
                ),
                (
                    "node",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="channels_groups_database.node",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "connection",
                    channels_groups.database.models.AsciiField(max_length=64),
                ),
                ("user_key", channels_groups.database.models.AsciiField(max_length=32)),
                ("user", models.TextField()),
                ("record", models.TextField()),
                ("told", models.BooleanField()),
                ("until", models.BigIntegerField(default=0)),
                ("owner", channels_groups.database.models.AsciiField(max_length=64)),
                (
                    "part",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="channels_groups_database.part",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Watcher",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("layer", channels_groups.database.models.AsciiField(max_length=100)),
                ("channel", channels_groups.database.models.AsciiField(max_length=100)),
                ("until", models.BigIntegerField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("layer", "channel"), name="channels_groups_watcher"
                    )
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="part",
            constraint=models.UniqueConstraint(
                fields=("group", "node"), name="channels_groups_part"
            ),
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(
                fields=["part", "user_key"], name="channels_groups_user"
            ),
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(fields=["user_key"], name="channels_groups_of_user"),
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(fields=["until"], name="channels_groups_until"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(
                fields=("part", "connection"), name="channels_groups_membership"
            ),
        ),
    ]
