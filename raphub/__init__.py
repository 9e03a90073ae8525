"""Live, warm copies of Ray actors on different nodes."""
