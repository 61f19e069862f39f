from django.db import migrations, models

import soc_tasks.models


class Migration(migrations.Migration):
    dependencies = [
        ("soc_tasks", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="PayloadRow",
            fields=[
                ("start_id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("data", models.BinaryField()),
                ("until", soc_tasks.models.MomentField()),
            ],
            options={
                "db_table": "soc_tasks_payload",
                "indexes": [models.Index(fields=["until"], name="soc_tasks_payload_until")],
            },
        ),
    ]
