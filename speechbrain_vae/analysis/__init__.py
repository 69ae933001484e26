"""What a representation holds: phones, their discrimination, their order."""
