from __future__ import annotations

from django.contrib.admin import AdminSite


class IMAdminSite(AdminSite):
    site_header = "imserver"
    site_title = "imserver"
    index_title = "Messaging"
