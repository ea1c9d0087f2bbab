"""Who may do what over the API: certificates, credentials, roles, limits, the audit log."""
