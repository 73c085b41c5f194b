import path from "node:path";

import type { NextConfig } from "next";

const config: NextConfig = {
  // These open sockets and read files of their own: Node loads them, the bundler leaves them alone.
  serverExternalPackages: ["@aws-sdk/client-secrets-manager", "@aws-sdk/client-sts", "ioredis", "pg"],
  poweredByHeader: false,
  // Only because this example lies inside of the package that it shows.
  turbopack: { root: path.join(import.meta.dirname, "..") },
};

export default config;
