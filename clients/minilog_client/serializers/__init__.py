"""What turns values and keys of applications into bytes, and back."""
