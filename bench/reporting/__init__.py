"""What a reader sees: tables, text, figures and pages."""
