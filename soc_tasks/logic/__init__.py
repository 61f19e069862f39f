"""What tasks mean. Knows no request and no response."""
