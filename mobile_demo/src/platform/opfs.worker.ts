/**
 * The private file system's writer. Only a worker gets synchronous access handles, and only those write in place: what
 * was appended before a crash is still there after it.
 */
import type { StorageAnswer, StorageCall } from './opfs.messages';

interface SyncHandle {
  getSize(): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

let queue: Promise<void> = Promise.resolve();

self.onmessage = (event: MessageEvent<StorageCall>) => {
  const call = event.data;
  queue = queue.then(async () => {
    let answer: StorageAnswer;
    try {
      answer = { id: call.id, value: await perform(call) };
    } catch (error) {
      answer = { id: call.id, error: error instanceof Error ? error.message : String(error), name: (error as Error).name };
    }
    self.postMessage(answer);
  });
};

async function perform(call: StorageCall): Promise<unknown> {
  switch (call.kind) {
    case 'size':
      return (await fileOrNull(call.path))?.size ?? null;
    case 'read': {
      const file = await fileOrNull(call.path);
      if (!file) throw new Error(`${call.path} does not exist`);
      return new Uint8Array(await file.slice(call.begin, call.end).arrayBuffer());
    }
    case 'write':
      return put(call.path, call.bytes, true);
    case 'append':
      return put(call.path, call.bytes, false);
    case 'remove':
      return remove(call.path);
    case 'list':
      return list(call.path);
  }
}

async function directoryOf(path: string, create: boolean): Promise<[FileSystemDirectoryHandle, string]> {
  const parts = path.split('/');
  const name = parts.pop() ?? '';
  let directory = await navigator.storage.getDirectory();
  for (const part of parts) directory = await directory.getDirectoryHandle(part, { create });
  return [directory, name];
}

async function orNull<T>(action: () => Promise<T>): Promise<T | null> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof DOMException && (error.name === 'NotFoundError' || error.name === 'TypeMismatchError')) return null;
    throw error;
  }
}

const fileOrNull = (path: string): Promise<File | null> =>
  orNull(async () => {
    const [directory, name] = await directoryOf(path, false);
    return (await directory.getFileHandle(name)).getFile();
  });

async function put(path: string, bytes: Uint8Array, whole: boolean): Promise<void> {
  const [directory, name] = await directoryOf(path, true);
  const handle = await directory.getFileHandle(name, { create: true });
  const access = await (handle as unknown as { createSyncAccessHandle(): Promise<SyncHandle> }).createSyncAccessHandle();
  try {
    if (whole) access.truncate(0);
    access.write(bytes, { at: access.getSize() });
    access.flush();
  } finally {
    access.close();
  }
}

async function remove(path: string): Promise<void> {
  await orNull(async () => {
    const [directory, name] = await directoryOf(path, false);
    await directory.removeEntry(name, { recursive: true });
  });
}

async function list(path: string): Promise<string[]> {
  const names = await orNull(async () => {
    const [parent, name] = await directoryOf(path, false);
    const directory = await parent.getDirectoryHandle(name);
    const found: string[] = [];
    for await (const key of (directory as unknown as { keys(): AsyncIterable<string> }).keys()) found.push(key);
    return found;
  });
  return (names ?? []).sort();
}
