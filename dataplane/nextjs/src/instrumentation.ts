/**
 * `export { register } from "@tenant-controlplane/nextjs/instrumentation"` in `instrumentation.ts`: Next.js
 * calls it once, before it takes requests. Without it the settings are read at the first request, since
 * `next build` must do without them, and a server that can serve nobody says that it is ready.
 */

import { settingsFrom } from "./settings.js";

/**
 * Says which settings are missing or can't be used, a line for each, and ends the process with status 1.
 * What `register` throws Next.js only logs (16.4.5), and stays up without serving.
 */
export function register(): void {
  try {
    settingsFrom(process.env);
  } catch (error) {
    for (const mistake of (error as Error).message.split("\n")) console.error(`[tenant] ${mistake}`);
    process.exit(1);
  }
}
