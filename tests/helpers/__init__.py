"""The fault laboratory: real servers, real clients, real faults, and an oracle."""
