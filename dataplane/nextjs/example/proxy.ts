import { createTenantProxy } from "@tenant-controlplane/nextjs/proxy";

export const proxy = createTenantProxy({
  pages: {
    "unknown-host": "/state/unknown",
    suspended: "/state/suspended",
    provisioning: "/state/provisioning",
    "being-updated": "/state/updating",
    waking: "/state/waking",
    "routing-unavailable": "/state/unavailable",
    "database-unavailable": "/state/unavailable",
    "credential-unavailable": "/state/unavailable",
  },
  cached: ["/board"],
});

export const config = {
  matcher: ["/((?!_next/static|_next/image|favicon.ico).*)"],
};
