/** Packages in the browser: the origin private file system, written by a worker. */
import { AppError } from '../errors';
import type { Storage } from '../packages/storage';
import type { StorageAnswer, StorageRequest } from './opfs.messages';

const WORKER = 'engine/storage.js';

class OpfsStorage implements Storage {
  private worker: Worker | null = null;
  private nextId = 1;
  private readonly waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();

  size = (path: string) => this.ask<number | null>({ kind: 'size', path });
  read = (path: string, begin = 0, end?: number) =>
    this.ask<Uint8Array<ArrayBuffer>>({ kind: 'read', path, begin, ...(end === undefined ? {} : { end }) });
  write = (path: string, bytes: Uint8Array) => this.ask<void>({ kind: 'write', path, bytes });
  append = (path: string, bytes: Uint8Array) => this.ask<void>({ kind: 'append', path, bytes });
  remove = (path: string) => this.ask<void>({ kind: 'remove', path });
  list = (path: string) => this.ask<readonly string[]>({ kind: 'list', path });
  locate = (path: string) => path;

  async freeBytes(): Promise<number | null> {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined || usage === undefined ? null : quota - usage;
  }

  private ask<T>(request: StorageRequest): Promise<T> {
    this.worker ??= this.start();
    const id = this.nextId++;
    return new Promise<T>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker?.postMessage({ ...request, id });
    });
  }

  private start(): Worker {
    const worker = new Worker(new URL(WORKER, document.baseURI));
    worker.onmessage = (event: MessageEvent<StorageAnswer>) => {
      const answer = event.data;
      const waiter = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if ('error' in answer) {
        waiter?.reject(new AppError(answer.name === 'QuotaExceededError' ? 'space' : 'engine', answer.error));
      } else waiter?.resolve(answer.value as never);
    };
    worker.onerror = (event) => {
      for (const waiter of this.waiting.values()) waiter.reject(new AppError('engine', event.message || 'no storage'));
      this.waiting.clear();
    };
    return worker;
  }
}

export const storage: Storage = new OpfsStorage();

/** Ask the browser not to evict the packages when the disk runs full. */
export const keepStorage = async (): Promise<void> => {
  await navigator.storage.persist?.();
};
