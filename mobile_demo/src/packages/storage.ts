/** Where packages lie: the app's own directory on a phone, the origin private file system in a browser. */
export interface Storage {
  /** Size in bytes, or null when there is no such file. */
  size(path: string): Promise<number | null>;
  /** Bytes from `begin` up to `end` (default: the end). */
  read(path: string, begin?: number, end?: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Replace the whole file. */
  write(path: string, bytes: Uint8Array): Promise<void>;
  /** Add to the end; on return the bytes survive a crash of the app. Directories are made as needed. */
  append(path: string, bytes: Uint8Array): Promise<void>;
  /** Remove a file, or a directory with all in it; nothing happens when it does not exist. */
  remove(path: string): Promise<void>;
  /** Names directly inside a directory; empty when it does not exist. */
  list(directory: string): Promise<readonly string[]>;
  /** Free bytes, or null where the system does not tell. */
  freeBytes(): Promise<number | null>;
  /** What engines open: an absolute path on a phone, the path inside the private file system in a browser. */
  locate(path: string): string;
  /** SHA-256 by native code, where there is some: JavaScript engines of phones are slow at it. */
  digest?(path: string): Promise<string>;
}

/** Free space left untouched, so that the device does not choke on the last byte. */
export const SPARE_BYTES = 64 * 2 ** 20;
