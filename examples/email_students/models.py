"""Programs and their students."""

from django.db import models


class Program(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Student(models.Model):
    program = models.ForeignKey(Program, on_delete=models.CASCADE, related_name="students")
    name = models.CharField(max_length=100)
    email = models.EmailField()

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"
