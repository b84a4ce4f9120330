/** Small settings, read at once when the app starts. */
import { File, Paths } from 'expo-file-system';

const at = (key: string): File => new File(Paths.document, `kobako.${key}.json`);

export const kv = {
  get: (key: string): string | null => (at(key).exists ? at(key).textSync() : null),
  set: (key: string, value: string): void => at(key).write(value),
};
