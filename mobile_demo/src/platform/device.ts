/** What the phone tells of itself. */
import * as Device from 'expo-device';
import { Directory, File, Paths } from 'expo-file-system';
import { fetch as expoFetch } from 'expo/fetch';
import { AppState, Platform, Share } from 'react-native';

import type { Fetch } from '../packages/origin';

export const platform = Platform.OS as 'android' | 'ios';

/** In bytes, or null where the system does not tell. */
export const memoryBytes = (): number | null => Device.totalMemory;

// React Native's own fetch holds the whole answer in memory; Expo's streams it
export const fetchBytes = expoFetch as unknown as Fetch;

/** The files of a directory the user picks, by their path inside it; null when nothing was picked. */
export async function pickDirectory(): Promise<{ name: string; files: ReadonlyMap<string, Blob> } | null> {
  try {
    const picked = await Directory.pickDirectoryAsync();
    const files = new Map<string, Blob>();
    collect(picked, '', files);
    return { name: picked.name, files };
  } catch {
    return null; // cancelled
  }
}

function collect(directory: Directory, prefix: string, files: Map<string, Blob>): void {
  for (const one of directory.list()) {
    if (one instanceof Directory) collect(one, `${prefix}${one.name}/`, files);
    else files.set(`${prefix}${one.name}`, one as unknown as Blob);
  }
}

export const canShare = (): boolean => true;

export const shareText = (message: string): Promise<void> => Share.share({ message }).then(() => undefined);

export function saveText(name: string, text: string): void {
  const file = new File(Paths.cache, name);
  if (file.exists) file.delete();
  file.write(text);
  void Share.share(Platform.OS === 'ios' ? { url: file.uri } : { message: text, title: name });
}

export const resolveAddress = (address: string): string => address;

/** What to do out of sight: at once, or when it has lasted and nothing is under way. */
export interface Background {
  readonly now: () => void;
  readonly idle: () => void;
}

/** Calls back when the app goes out of sight: from then on the system may end it for the memory it holds. */
export function onBackground({ now }: Background): () => void {
  const subscription = AppState.addEventListener('change', (state) => state === 'background' && now());
  return () => subscription.remove();
}

export function describeDevice(): Record<string, string> {
  return { platform, model: Device.modelName ?? '', system: `${Device.osName} ${Device.osVersion}` };
}

/** A phone keeps its apps. */
export const keepOffline = (): void => undefined;
