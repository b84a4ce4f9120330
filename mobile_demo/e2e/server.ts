/** Serves the exported app and packages on loopback: isolation headers, ETag, Range, and faults on demand. */
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.ttf': 'font/ttf',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.webmanifest': 'application/manifest+json',
};

/** A package as the server shows it: a directory, with some files in another state than on disk. */
export interface Shown {
  readonly directory: string;
  readonly replaced: Readonly<Record<string, Buffer | null>>;
}

export interface Seen {
  readonly path: string;
  readonly range: string | null;
  readonly status: number;
}

export class TestServer {
  readonly seen: Seen[] = [];
  /** Cut the connection of the first answer longer than this, once. */
  cutAfter: number | null = null;
  /** Bytes per second; null = as fast as it goes. */
  slow: number | null = null;
  private readonly server: Server;

  constructor(
    private readonly app: string,
    readonly packages: Record<string, Shown>,
  ) {
    this.server = createServer((request, response) => this.handle(request, response));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `http://localhost:${(this.server.address() as AddressInfo).port}/`;
  }

  stop(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }

  private handle(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    const { file, replaced } = this.find(path);
    if (file === null) {
      this.note(request, path, 404, response);
      response.end();
      return;
    }
    response.setHeader('Content-Type', TYPES[extname(file)] ?? 'application/octet-stream');
    this.send(request, response, path, file, replaced);
  }

  /** The file behind a path and what is shown in its place, or null when there is none. */
  private find(path: string): { file: string | null; replaced?: Buffer } {
    const [, root, name = '', ...rest] = path.split('/');
    const shown = root === 'packages' ? this.packages[name] : undefined;
    const inside = shown ? rest.join('/') : path === '/' ? 'index.html' : path.slice(1);
    const replaced = shown?.replaced[inside];
    const file = join(shown?.directory ?? this.app, normalize(`/${inside}`));
    if (replaced) return { file, replaced };
    return { file: replaced !== null && existsSync(file) && statSync(file).isFile() ? file : null };
  }

  private send(request: IncomingMessage, response: ServerResponse, path: string, file: string, replaced: Buffer | undefined): void {
    const size = replaced?.length ?? statSync(file).size;
    const etag = replaced ? `"replaced-${size}"` : `"${size}-${Math.round(statSync(file).mtimeMs)}"`;
    response.setHeader('ETag', etag);
    response.setHeader('Accept-Ranges', 'bytes');
    const match = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
    const from = match && request.headers['if-range'] === etag ? Number(match[1]) : 0;
    if (from > 0) response.setHeader('Content-Range', `bytes ${from}-${size - 1}/${size}`);
    response.setHeader('Content-Length', size - from);
    this.note(request, path, from > 0 ? 206 : 200, response);
    if (replaced) response.end(replaced.subarray(from));
    else void this.stream(response, file, from, size - from);
  }

  private async stream(response: ServerResponse, file: string, from: number, length: number): Promise<void> {
    let sent = 0;
    const cut = this.cutAfter !== null && length > this.cutAfter ? this.cutAfter : null;
    if (cut !== null) this.cutAfter = null;
    for await (const block of createReadStream(file, { start: from, highWaterMark: 1 << 18 })) {
      if (response.destroyed) return;
      if (!response.write(block)) {
        await drained(response);
      }
      sent += (block as Buffer).length;
      if (cut !== null && sent >= cut) {
        response.destroy();
        return;
      }
      if (this.slow !== null) await new Promise((resolve) => setTimeout(resolve, ((block as Buffer).length / (this.slow ?? 1)) * 1000));
    }
    response.end();
  }

  private note(request: IncomingMessage, path: string, status: number, response: ServerResponse): void {
    this.seen.push({ path, range: request.headers.range ?? null, status });
    response.writeHead(status);
  }
}

/** Until there is room again, or nobody listens any more. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}
