"""Tasks of the e-mail example, apart from its pages."""

import logging
from smtplib import SMTPRecipientsRefused

from django.core import mail

from soc_tasks import FatalTaskError, iterative_task

BATCH_SIZE = 100
logger = logging.getLogger(__name__)


@iterative_task(batch_size=BATCH_SIZE)
def email_all(request, entities, context, slug):
    """Mail the students of one batch over one SMTP connection.

    Which students: the context that the starter posted says so (`logic`, `filter`), or the admin's selection. A batch
    counts when this function returns; one that fails is sent again. So a mail can arrive twice, if the worker dies in
    the middle of a batch, and each carries a key that is the same both times.
    """
    if "subject" not in context or "body" not in context:
        raise FatalTaskError("The context lacks subject or body; start this task with both.")
    with _choose_connection() as connection:
        for student in entities:
            try:
                connection.send_messages([_write_mail(request, context, slug, student)])
            except SMTPRecipientsRefused:
                # This address will never do. Raising would mail the others of the batch again, to no end.
                logger.warning("the mail server refuses the address of student %s", student.pk)


def _choose_connection():
    """Return the site's mail connection; Django 6.1 has its own word for that."""
    return mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()


def _write_mail(request, context, slug, student):
    return mail.EmailMessage(
        subject=context["subject"],
        body=f"Dear {student.name},\n\n{context['body']}\n",
        to=[student.email],
        headers={
            # The same however often the batch is repeated: who must not act twice can tell by it.
            "Message-ID": f"<{request.task.iteration}.{student.pk}@{slug}.example.org>",
            "X-Student": str(student.pk),
        },
    )
