"""Anyone's LoRA on anyone's model: measures that need no judge, and a report of them as one page."""
