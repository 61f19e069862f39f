"""App of the e-mail example."""

from django.apps import AppConfig

from soc_tasks import ModelLogic, register_logic


class EmailStudentsConfig(AppConfig):
    name = "examples.email_students"
    verbose_name = "E-mail to students"

    def ready(self):
        """Register the logic that a posted context may name; names are looked up here, never imported."""
        from examples.email_students.models import Student

        register_logic("soc.logic.models.student", ModelLogic(Student))
