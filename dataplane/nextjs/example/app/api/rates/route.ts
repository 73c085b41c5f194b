import { tenantFetch } from "@tenant-controlplane/nextjs/cache";
import { tenant, tenantRoute } from "@tenant-controlplane/nextjs/server";

/** What another service says, asked once an hour for each tenant: the same URL, two answers kept apart. */
export const GET = tenantRoute(async () => {
  const url = process.env["RATES_URL"];
  if (url === undefined) return Response.json({ code: "not-configured" }, { status: 404 });
  return tenantFetch(await tenant(), url, { revalidate: 3600, tags: ["rates"] });
});
