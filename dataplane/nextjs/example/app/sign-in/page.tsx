import { tenant } from "@tenant-controlplane/nextjs/server";

import { signIn } from "../actions";

export default async function SignIn() {
  const { slug } = await tenant();
  return (
    <>
      <h1>Sign in to {slug}</h1>
      <form action={signIn}>
        <input name="name" placeholder="Your name" required maxLength={60} /> <button type="submit">Sign in</button>
      </form>
    </>
  );
}
