/** Real parts for the tests: files on disk, a web server that can be told to misbehave. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, appendFileSync, writeFileSync, existsSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import type { FileEntry, Manifest } from '../src/packages/manifest';
import type { Storage } from '../src/packages/storage';

export const sha256 = (data: Uint8Array | string): string => createHash('sha256').update(data).digest('hex');

export const entry = (path: string, data: Uint8Array): FileEntry => ({ path, size_bytes: data.length, sha256: sha256(data) });

/** Storage in a directory of its own. */
export class DiskStorage implements Storage {
  readonly root = mkdtempSync(join(tmpdir(), 'kobako-app-'));
  free: number | null = null;

  private at = (path: string) => join(this.root, path);
  size = async (path: string) => (existsSync(this.at(path)) && statSync(this.at(path)).isFile() ? statSync(this.at(path)).size : null);
  read = async (path: string, begin = 0, end?: number) => new Uint8Array(readFileSync(this.at(path)).subarray(begin, end));
  write = async (path: string, bytes: Uint8Array) => {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), bytes);
  };
  append = async (path: string, bytes: Uint8Array) => {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    appendFileSync(this.at(path), bytes);
  };
  remove = async (path: string) => rmSync(this.at(path), { recursive: true, force: true });
  list = async (path: string) => (existsSync(this.at(path)) ? readdirSync(this.at(path)).sort() : []);
  freeBytes = async () => this.free;
  locate = (path: string) => this.at(path);
}

/** Serves files from memory, honouring Range unless told otherwise. */
export class MemoryServer {
  readonly files = new Map<string, Uint8Array>();
  readonly ranges: (string | null)[] = [];
  honourRange = true;
  /** Ignore If-Range and answer 206 with a part that begins elsewhere. */
  wrongPart = false;
  etag: string | null = '"one"';
  /** Break the connection after so many bytes, once. */
  cutAfter: number | null = null;
  address = '';
  private readonly server: Server = createServer((request, response) => this.answer(request, response));

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.address = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/pkg/`;
    return this;
  }

  stop(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }

  /** Where the answer begins. */
  private begin(request: IncomingMessage): number {
    const asked = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (!this.honourRange || asked === 0) return 0;
    if (this.wrongPart) return asked - 1;
    return request.headers['if-range'] === this.etag ? asked : 0;
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const data = this.files.get(decodeURIComponent(request.url ?? '').replace('/pkg/', ''));
    this.ranges.push(request.headers.range ?? null);
    if (!data) {
      response.writeHead(404).end();
      return;
    }
    if (this.etag) response.setHeader('ETag', this.etag);
    const from = this.begin(request);
    const partial = from > 0;
    if (partial) response.setHeader('Content-Range', `bytes ${from}-${data.length - 1}/${data.length}`);
    response.writeHead(partial ? 206 : 200, { 'Content-Length': data.length - from });
    if (this.cutAfter === null) response.end(data.subarray(from));
    else {
      response.write(data.subarray(from, from + this.cutAfter));
      this.cutAfter = null;
      setTimeout(() => response.destroy(), 100);
    }
  }
}

/** A small manifest with one target, in the pipeline's form. */
export function tinyManifest(files: Readonly<Record<string, Uint8Array>>, change: Partial<Manifest> = {}): Manifest {
  const entries = Object.entries(files).map(([path, data]) => entry(path, data));
  return {
    format_version: '1.0',
    name: 'tiny-int8',
    build_id: '0'.repeat(32),
    kobako_version: '0.1.0',
    model: { name: 'tiny', origin: 'test', revision: '1', model_type: 'llama', licence: 'Apache-2.0', files: [] },
    recipe: { name: 'int8', weight_bits: 8, group_size: null, embedding_bits: 8 },
    context_tokens: 64,
    stop_ids: [2],
    chat_template: null,
    tasks: [{ name: 'complete', messages: [], prompt: '{text}', stop: [], max_new_tokens: 8, languages: [] }],
    proven: true,
    targets: {
      litert: {
        files: entries.filter((one) => one.path.startsWith('litert/')),
        activations: 'int8-dynamic',
        needs: { ram_bytes: 1000, runtimes: {} },
        proven: true,
        details: {},
      },
    },
    files: entries.filter((one) => !one.path.startsWith('litert/')),
    ...change,
  } as unknown as Manifest;
}
