// What the page says to the server, and what comes back. Knows nothing of the page.

export class KeyNeeded extends Error {}

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Check that it is still running.");
  }
  if (!response.ok) throw refusal(response.status, await response.text());
  return response;
}

function refusal(status, body) {
  if (status === 401) return new KeyNeeded();
  try {
    return new Error(JSON.parse(body).error.message);
  } catch {
    return new Error(`The server failed with status ${status}.`);
  }
}

export const get = async (path) => (await call(path)).json();
export const post = (path, body, signal) => call(path, { method: "POST", body: JSON.stringify(body), signal });

/** The events of a stream up to its end mark. Throws where there is none, and what the stream says went wrong. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Error("The connection broke before the answer was whole. Ask again.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const text of events.map((event) => event.replace(/^data: /, ""))) {
      if (text === "[DONE]") return;
      const event = JSON.parse(text);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

/** Upload a file and give its id; `onProgress` gets the share that is sent, which fetch would not tell. */
export function send(file, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file);
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => request.status === 200
      ? resolve(JSON.parse(request.responseText).id) : reject(refusal(request.status, request.responseText));
    request.onerror = () => reject(new Error("The video did not reach the server. Try again."));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
