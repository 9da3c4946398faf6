"""The code of the servers under test that need some; it runs in their environments, not in the project's."""
