"""Tables, text, figures and pages for a reader."""
