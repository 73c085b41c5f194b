"use client";

/** Shown where the database went away while the page was being made. */
export default function Failed({ reset }: { reset: () => void }) {
  return (
    <>
      <h1>Back in a moment</h1>
      <p>
        The page could not be made. <button type="button" onClick={reset}>Try again</button>
      </p>
    </>
  );
}
