"""What the program's office writes."""

from django import forms


class MessageForm(forms.Form):
    subject = forms.CharField(max_length=120, initial="Welcome to the program")
    body = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 6}),
        initial="we are glad to have you with us. Your mentor will write to you this week.",
    )

    def clean_subject(self):
        """Return the subject on one line: a mail's header cannot hold more, and the task would fail for ever."""
        return " ".join(self.cleaned_data["subject"].split())
