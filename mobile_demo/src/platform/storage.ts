/** Packages on a phone: the app's documents directory, through expo-file-system. */
import { Directory, File, Paths } from 'expo-file-system';

import { sha256File } from '../../modules/kobako-native';
import type { Storage } from '../packages/storage';

const at = (path: string): File => new File(Paths.document, path);

function withHandle<T>(path: string, action: (handle: ReturnType<File['open']>) => T): T {
  const handle = at(path).open();
  try {
    return action(handle);
  } finally {
    handle.close();
  }
}

async function append(path: string, bytes: Uint8Array): Promise<void> {
  const file = at(path);
  if (!file.exists) file.create({ intermediates: true });
  withHandle(path, (handle) => {
    handle.offset = handle.size ?? 0;
    handle.writeBytes(bytes as Uint8Array<ArrayBuffer>);
  });
}

export const storage: Storage = {
  size: async (path) => (at(path).exists ? (at(path).size ?? 0) : null),
  read: async (path, begin = 0, end) =>
    withHandle(path, (handle) => {
      handle.offset = begin;
      return handle.readBytes((end ?? handle.size ?? 0) - begin) as Uint8Array<ArrayBuffer>;
    }),
  write: async (path, bytes) => {
    const file = at(path);
    if (file.exists) file.delete();
    await append(path, bytes);
  },
  append,
  remove: async (path) => {
    const directory = new Directory(Paths.document, path);
    if (directory.exists) directory.delete();
    else if (at(path).exists) at(path).delete();
  },
  list: async (path) => {
    const directory = new Directory(Paths.document, path);
    return directory.exists ? directory.list().map((one) => one.name).sort() : [];
  },
  freeBytes: async () => Paths.availableDiskSpace,
  locate: (path) => at(path).uri.replace(/^file:\/\//, ''),
  ...(sha256File ? { digest: (path: string) => sha256File!(at(path).uri) } : {}),
};

/** A phone keeps an app's documents by itself. */
export const keepStorage = async (): Promise<void> => undefined;
