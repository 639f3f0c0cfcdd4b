"""Push vendors: who shows a notice on a device that is not connected. docs/offline-push.md says how each is set up."""
