"""What is measured and recorded while serving."""
