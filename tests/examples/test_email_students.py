"""The e-mail example does what its page says, also when the mail server does not."""

from __future__ import annotations

from smtplib import SMTPRecipientsRefused
from unittest import mock

import django
import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from django.urls import reverse

from examples.email_students.models import Program, Student
from examples.email_students.tasks import BATCH_SIZE
from soc_tasks import startTask
from soc_tasks.testing import TaskFailedError, TaskTestCase

MESSAGE = {"subject": "Hello", "body": "all is well."}


class StarterTest(TaskTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.program = Program.objects.create(slug="gsoc", name="Summer of Code")
        Student.objects.create(program=cls.program, name="Ada", email="ada@example.org")
        users = get_user_model().objects
        cls.admin = users.create_superuser("admin")
        cls.student = users.create_user("student")

    def setUp(self):
        super().setUp()
        self.url = reverse("email_all_starter", kwargs={"slug": "gsoc"})

    def test_page_is_as_melange_wrote_it(self):
        assert self.url == "/program/gsoc/email_all_starter/"

    def test_admin_sees_the_form(self):
        self.client.force_login(self.admin)
        response = self.client.get(self.url)
        self.assertContains(response, "Send to 1 student<")
        self.assertContains(response, "csrfmiddlewaretoken")
        self.assertNumTasksEquals(0)

    def test_post_starts_the_task_and_shows_the_page_as_usual(self):
        self.client.force_login(self.admin)
        response = self.client.post(self.url, MESSAGE)
        self.assertNumTasksEquals(1, "mail")
        handle = response.context["handle"]
        assert handle.url == "/program/gsoc/email_all/"
        assert handle.iteration
        self.assertContains(response, handle.name)
        self.assertContains(response, "Send to 1 student<")
        assert mail.outbox == []

    def test_incomplete_form_starts_nothing(self):
        self.client.force_login(self.admin)
        self.assertContains(self.client.post(self.url, {"subject": "Hello"}), "This field is required.")
        self.assertNumTasksEquals(0)

    def test_unknown_program_is_not_found(self):
        self.client.force_login(self.admin)
        url = reverse("email_all_starter", kwargs={"slug": "unknown"})
        assert self.client.post(url, MESSAGE).status_code == 404

    def test_others_are_sent_to_the_login(self):
        for user in (None, self.student):
            with self.subTest(user=user):
                if user:
                    self.client.force_login(user)
                for answer in (self.client.get(self.url), self.client.post(self.url, MESSAGE)):
                    self.assertRedirects(answer, f"/admin/login/?next={self.url}", fetch_redirect_response=False)
        self.assertNumTasksEquals(0)

    def test_post_without_token_is_refused(self):
        client = Client(enforce_csrf_checks=True)
        client.force_login(self.admin)
        assert client.post(self.url, MESSAGE).status_code == 403
        self.assertNumTasksEquals(0)


class EmailAllTest(TaskTestCase):
    @classmethod
    def setUpTestData(cls):
        call_command("load_students", count=2 * BATCH_SIZE + 30, verbosity=0)
        call_command("load_students", count=3, program="other", verbosity=0)
        cls.program = Program.objects.get(slug="gsoc")
        cls.admin = get_user_model().objects.create_superuser("admin")

    def setUp(self):
        super().setUp()
        self.client.force_login(self.admin)

    def start(self, **fields):
        response = self.client.post(reverse("email_all_starter", kwargs={"slug": "gsoc"}), {**MESSAGE, **fields})
        return response.context["handle"]

    def test_each_student_of_the_program_gets_one_mail(self):
        self.start()
        self.process_task_queues()
        emails = self.program.students.values_list("email", flat=True)
        assert sorted(message.to for message in mail.outbox) == sorted([email] for email in emails)
        student = self.program.students.get(email="student0@gsoc.example.org")
        (message,) = (message for message in mail.outbox if message.to == [student.email])
        assert message.subject == "Hello"
        assert message.body == "Dear Ada Allen,\n\nall is well.\n"

    def test_mails_carry_a_key_that_is_the_same_when_a_batch_is_repeated(self):
        handle = self.start()
        self.process_task_queues()
        keys = {message.extra_headers["Message-ID"]: message for message in mail.outbox}
        assert len(keys) == len(mail.outbox)
        for student in self.program.students.all():
            message = keys[f"<{handle.iteration}.{student.pk}@gsoc.example.org>"]
            assert message.to == [student.email]
            assert message.extra_headers["X-Student"] == str(student.pk)

    def test_batches_share_a_connection_each(self):
        with mock.patch.object(EmailBackend, "open", autospec=True) as connect:
            self.start()
            self.process_task_queues()
        assert connect.call_count == 3

    def test_students_that_are_selected_in_the_admin_get_one_mail_each(self):
        chosen = Student.objects.filter(program__slug="other")
        url = f"{reverse('admin:email_students_student_changelist')}?q=other.example"
        data = {"action": "run_email_selected_over_selection", "_selected_action": [chosen[0].pk], "select_across": "1"}
        page = self.client.post(url, data)
        self.assertContains(page, "<strong>3 students</strong>")
        message = {f"context-{name}": value for name, value in MESSAGE.items()}
        page = self.client.post(url, {**data, "post": "yes", "run-task": "0", **message}, follow=True)
        self.assertContains(page, "runs over 3 students")
        self.assertNumTasksEquals(1, "mail")
        self.process_task_queues()
        assert sorted(message.to[0] for message in mail.outbox) == sorted(chosen.values_list("email", flat=True))

    def test_subject_is_put_on_one_line(self):
        self.start(subject="One\r\nBcc: everybody@example.org")
        self.process_task_queues()
        assert mail.outbox[0].subject == "One Bcc: everybody@example.org"

    def test_refused_address_does_not_stop_the_others(self):
        refused = self.program.students.all()[5].email
        send = EmailBackend.send_messages

        def refuse(backend, messages):
            if messages[0].to == [refused]:
                raise SMTPRecipientsRefused({refused: (550, b"unknown")})
            return send(backend, messages)

        with (
            mock.patch.object(EmailBackend, "send_messages", refuse),
            self.assertLogs("examples.email_students.tasks", "WARNING") as logs,
        ):
            self.start()
            self.process_task_queues()
        assert len(mail.outbox) == self.program.students.count() - 1
        assert len(logs.output) == 1

    def test_dead_mail_server_fails_the_task(self):
        self.start()
        with (
            mock.patch.object(EmailBackend, "open", side_effect=ConnectionRefusedError),
            pytest.raises(TaskFailedError) as caught,
        ):
            self.process_task_queues()
        assert isinstance(caught.value.original_exception, ConnectionRefusedError)

    def test_context_without_message_ends_the_task(self):
        context = {"logic": "soc.logic.models.student", "filter": {"program": self.program.pk}}
        startTask("email_all", context, url_kwargs={"slug": "gsoc"})
        with pytest.raises(TaskFailedError, match="subject"):
            self.process_task_queues()
        assert mail.outbox == []

    def test_nobody_calls_the_task_by_hand(self):
        url = reverse("email_all", kwargs={"slug": "gsoc"})
        context = {"logic": "soc.logic.models.student", **MESSAGE}
        for client in (Client(), self.client):
            answer = client.post(
                url, context, headers={"X-AppEngine-QueueName": "mail", "X-CloudTasks-QueueName": "mail"}
            )
            assert (answer.status_code, answer.content) == (403, b"")
        self.assertNumTasksEquals(0)
        assert mail.outbox == []

    @pytest.mark.requires("aiosmtpd")
    def test_mails_arrive_at_a_real_server(self):
        from examples.sink import MailSink

        backend = "django.core.mail.backends.smtp.EmailBackend"
        with MailSink() as sink:
            if django.VERSION >= (6, 1):
                options = {"host": "127.0.0.1", "port": sink.port, "timeout": 10}
                settings = override_settings(MAILERS={"default": {"BACKEND": backend, "OPTIONS": options}})
            else:
                settings = override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=sink.port)
            with settings:
                self.start()
                self.process_task_queues()
        assert sink.arrived == dict.fromkeys(self.program.students.values_list("pk", flat=True), 1)
        assert sink.total == self.program.students.count()


class LoadStudentsTest(TaskTestCase):
    def test_students_are_replaced(self):
        for count in (7, 5):
            call_command("load_students", count=count, verbosity=0)
        assert Student.objects.count() == 5
        assert Program.objects.count() == 1

    def test_negative_count_is_refused(self):
        with pytest.raises(CommandError, match="0 or more"):
            call_command("load_students", count=-1)
