import { db, tenant } from "@tenant-controlplane/nextjs/server";

import { addNote, signOut } from "./actions";
import { signedIn } from "./session";

interface Note {
  id: string;
  body: string;
}

export default async function Notes() {
  const { slug, host } = await tenant();
  const { rows } = await db().query<Note>("SELECT id, body FROM app.note ORDER BY id DESC LIMIT 50");
  const name = await signedIn();
  return (
    <>
      <nav>
        <a href="/">Notes</a>
        <a href="/digest">Digest</a>
        <a href="/board">Board</a>
      </nav>
      <h1>Notes of {slug}</h1>
      <p>at {host}</p>
      {name === null ? (
        <p>
          <a href="/sign-in">Sign in</a> to write.
        </p>
      ) : (
        <>
          <form action={addNote}>
            <input name="body" placeholder="A new note" required maxLength={500} /> <button type="submit">Add</button>
          </form>
          <form action={signOut}>
            <p>
              Signed in as <b id="name">{name}</b>. <button type="submit">Sign out</button>
            </p>
          </form>
        </>
      )}
      <ul>
        {rows.map(({ id, body }) => (
          <li key={id}>{body}</li>
        ))}
      </ul>
    </>
  );
}
