/** Where a package comes from: a web address, or files the user picked. */
import { AppError, asAppError } from '../errors';

export interface Opened {
  /** Where the bytes begin: what was asked for, or 0 when the origin cannot continue there. */
  readonly from: number;
  /** Strong ETag of the file, or null: then it cannot be continued later. */
  readonly etag: string | null;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export interface Origin {
  /** Said to people, and remembered: an address, or a directory's name. */
  readonly label: string;
  /** The address for continuing after a restart; null when the files must be picked again. */
  readonly url: string | null;
  /** Null when there is no such file. Raises AppError `network`. */
  open(path: string, from: number, etag: string | null, signal?: AbortSignal): Promise<Opened | null>;
}

export type Fetch = (url: string, init: { headers: Record<string, string>; signal?: AbortSignal }) => Promise<Response>;

/** A directory on a web server; `kobako.json` lies directly in it. */
export function httpOrigin(address: string, fetch: Fetch): Origin {
  const base = address.replace(/\/?(kobako\.json)?$/, '/');
  return {
    label: base,
    url: base,
    async open(path, from, etag, signal) {
      const address = base + path.split('/').map(encodeURIComponent).join('/');
      const response = await request(fetch, address, from > 0 ? etag : null, from, signal);
      if (response.status === 404) return null;
      const tag = strongEtag(response);
      if (response.status === 200) return { from: 0, etag: tag, chunks: chunksOf(response, signal) };
      if (from > 0 && response.status === 206 && tag === etag && startsAt(response) === from) {
        return { from, etag: tag, chunks: chunksOf(response, signal) };
      }
      await response.body?.cancel();
      // another part than was asked for: begin again, with the whole file
      if (from > 0 && [206, 416].includes(response.status)) return this.open(path, 0, null, signal);
      throw new AppError('network', `${address}: HTTP ${response.status}`);
    },
  };
}

/** Asks for the rest when there is an ETag to make sure that it is the rest of the same file. */
async function request(fetch: Fetch, address: string, etag: string | null, from: number, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = etag === null ? {} : { Range: `bytes=${from}-`, 'If-Range': etag };
  try {
    return await fetch(address, { headers, signal });
  } catch (error) {
    throw broken(error, signal);
  }
}

/** Files the user picked, by their path inside the package. */
export function fileOrigin(label: string, files: ReadonlyMap<string, Blob>): Origin {
  return {
    label,
    url: null,
    open: async (path, _from, _etag, signal) => {
      const file = files.get(path);
      return file ? { from: 0, etag: null, chunks: streamChunks(file.stream(), signal) } : null;
    },
  };
}

/** The whole of a small file, or null when there is none. Raises AppError `notPackage` beyond `limit` bytes. */
export async function readSmall(origin: Origin, path: string, limit: number, signal?: AbortSignal): Promise<Uint8Array | null> {
  const opened = await origin.open(path, 0, null, signal);
  if (opened === null) return null;
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of opened.chunks) {
    size += chunk.length;
    if (size > limit) throw new AppError('notPackage', `${path} is larger than ${limit} bytes`);
    parts.push(chunk);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const broken = (error: unknown, signal: AbortSignal | undefined): AppError =>
  signal?.aborted ? new AppError('aborted', 'stopped') : asAppError(error, 'network');

function strongEtag(response: Response): string | null {
  const etag = response.headers.get('etag');
  return etag && !etag.startsWith('W/') ? etag : null;
}

function startsAt(response: Response): number | null {
  const match = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
  return match ? Number(match[1]) : null;
}

function chunksOf(response: Response, signal?: AbortSignal): AsyncIterable<Uint8Array> {
  if (!response.body) throw new AppError('network', 'the answer has no body');
  return streamChunks(response.body, signal);
}

async function* streamChunks(stream: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw broken(error, signal);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
