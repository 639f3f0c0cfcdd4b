"""Webhooks: HTTP calls to the app server before and after a message. docs/webhooks.md says what is called when."""
