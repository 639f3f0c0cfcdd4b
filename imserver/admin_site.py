from __future__ import annotations

from django.contrib.admin import AdminSite


class IMAdminSite(AdminSite):
    """Outside the package imserver.admin: that registers at the site while it is imported, so the site must exist before."""

    site_header = "imserver"
    site_title = "imserver"
    index_title = "Messaging"
