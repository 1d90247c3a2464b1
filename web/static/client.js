// The service, asked over HTTP.

/** An answer that is an error: its code, a sentence for a person, and its status. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Return the JSON that `GET path` answers. Throws `Refused`. */
export const get = (path, signal) => ask(path, { signal });

/** Return the JSON that `POST path` answers. The header is one that no other site's page can send unasked. */
export const post = (path, body = {}) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-immich-bento": "page" },
    body: JSON.stringify(body),
  });

async function ask(path, options) {
  let response;
  try {
    response = await fetch(`/ai/api/${path}`, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "no_connection", String(error.message ?? error));
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.code ?? "internal", answer.detail ?? response.statusText);
  return answer;
}

/** Return the address of an asset's picture. `size`: thumbnail or preview. */
export const pictureUrl = (id, size, version = 0) =>
  `/ai/api/assets/${id}/picture?size=${size}${version ? `&v=${version}` : ""}`;

/** Return the path of an asset's page. */
export const photoPath = (id) => `/ai/assets/${id}`;
