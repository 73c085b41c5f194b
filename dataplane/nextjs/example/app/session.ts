/**
 * Who is signed in, in a cookie of this host alone.
 *
 * `__Host-` makes the browser refuse the cookie unless it is Secure, for the whole host and without a
 * Domain, so a tenant on a sibling subdomain can neither read nor plant it. The tenant's id is inside
 * and signed: a cookie carried over to another tenant's host is nobody's there. (The example asks for
 * no password; an application would.)
 */

import "server-only";

import { createHmac, timingSafeEqual } from "node:crypto";

import { tenant } from "@tenant-controlplane/nextjs/server";
import { cookies } from "next/headers";

const COOKIE = "__Host-session";
const SECONDS = 8 * 3600;

export async function startSession(name: string): Promise<void> {
  const { id } = await tenant();
  const body = Buffer.from(JSON.stringify({ tenant: id, name, until: Date.now() + SECONDS * 1000 })).toString("base64url");
  (await cookies()).set(COOKIE, `${body}.${signature(body)}`, {
    secure: true,
    httpOnly: true,
    sameSite: "lax",
    path: "/",
    maxAge: SECONDS,
  });
}

export async function endSession(): Promise<void> {
  (await cookies()).set(COOKIE, "", { secure: true, httpOnly: true, sameSite: "lax", path: "/", maxAge: 0 });
}

/** The name of who is signed in to this tenant, or null. */
export async function signedIn(): Promise<string | null> {
  const [body = "", mac = ""] = ((await cookies()).get(COOKIE)?.value ?? "").split(".");
  const expected = Buffer.from(signature(body));
  const given = Buffer.from(mac);
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
  const session = JSON.parse(Buffer.from(body, "base64url").toString()) as { tenant: string; name: string; until: number };
  return session.tenant === (await tenant()).id && Date.now() < session.until ? session.name : null;
}

function signature(body: string): string {
  const secret = process.env["SESSION_SECRET"] ?? "";
  if (secret.length < 32) throw new Error("SESSION_SECRET: expected at least 32 characters");
  return createHmac("sha256", secret).update(body).digest("base64url");
}
