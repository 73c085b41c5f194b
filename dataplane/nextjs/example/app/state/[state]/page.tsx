import { WORDING, type ErrorCode } from "@tenant-controlplane/nextjs/errors";
import { notFound } from "next/navigation";

/** What a visitor sees instead of the application. Made once at build time: they need no tenant. */
const PAGES: Record<string, ErrorCode> = {
  unknown: "unknown-host",
  suspended: "suspended",
  provisioning: "provisioning",
  updating: "being-updated",
  waking: "waking",
  unavailable: "routing-unavailable",
};

export const dynamicParams = false;

export function generateStaticParams(): { state: string }[] {
  return Object.keys(PAGES).map((state) => ({ state }));
}

export default async function State({ params }: { params: Promise<{ state: string }> }) {
  const code = PAGES[(await params).state] ?? notFound();
  const { title, explanation } = WORDING[code];
  return (
    <>
      <h1>{title}</h1>
      <p>{explanation}</p>
    </>
  );
}
