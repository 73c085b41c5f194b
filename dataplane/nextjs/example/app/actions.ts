"use server";

import { tenantTag } from "@tenant-controlplane/nextjs/cache";
import { db, tenant } from "@tenant-controlplane/nextjs/server";
import { revalidatePath, updateTag } from "next/cache";
import { redirect } from "next/navigation";

import { endSession, signedIn, startSession } from "./session";

export async function addNote(form: FormData): Promise<void> {
  if ((await signedIn()) === null) redirect("/sign-in");
  const body = form.get("body");
  if (typeof body !== "string" || body.trim() === "" || body.length > 500) return;
  await db().query("INSERT INTO app.note (body) VALUES ($1)", [body.trim()]);
  const current = await tenant();
  updateTag(tenantTag(current, "notes"));
  revalidatePath(`/t/${current.segment}/board`);
  revalidatePath("/");
}

export async function signIn(form: FormData): Promise<void> {
  const name = form.get("name");
  if (typeof name === "string" && /^[\p{L}\p{N} .'-]{1,60}$/u.test(name)) await startSession(name);
  redirect("/");
}

export async function signOut(): Promise<void> {
  await endSession();
  redirect("/");
}
