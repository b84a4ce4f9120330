/** The app's template renderer, held against what Jinja makes of published templates (tests/chat_templates.py). */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { utf8 } from '../src/bytes';
import type { Message } from '../src/packages/manifest';
import { ShippedTokenizer } from '../src/tasks/tokenizer';

const HOME = join(__dirname, '../../tests/fixtures/chat_templates');
const TOKENIZER = utf8(JSON.stringify({ added_tokens: [], model: { type: 'BPE', vocab: { a: 0 }, merges: [] }, normalizer: null, pre_tokenizer: null, decoder: null, post_processor: null }));

interface Golden {
  readonly special_tokens: Readonly<Record<string, string>>;
  readonly cases: readonly { readonly name: string; readonly messages: Message[]; readonly text: string | null }[];
}
const golden: Record<string, Golden> = JSON.parse(readFileSync(join(HOME, 'golden.json'), 'utf8'));

/** Today as Llama's template writes it: 05 Mar 2026. */
const today = () => {
  const now = new Date();
  const month = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')[now.getMonth()];
  return `${String(now.getDate()).padStart(2, '0')} ${month} ${now.getFullYear()}`;
};

test('every template has its golden text', () => {
  const names = readdirSync(HOME).filter((name) => name.endsWith('.jinja')).map((name) => name.replace('.jinja', ''));
  expect(Object.keys(golden).sort()).toEqual(names.sort());
  expect(names.length).toBeGreaterThanOrEqual(14);
});

describe.each(Object.entries(golden))('%s', (name, { special_tokens, cases }) => {
  const chat_template = readFileSync(join(HOME, `${name}.jinja`), 'utf8');
  const tokenizer = new ShippedTokenizer(TOKENIZER, utf8(JSON.stringify({ ...special_tokens, chat_template })));
  test.each(cases)('$name', ({ messages, text }) => {
    if (text === null) expect(() => tokenizer.render(messages)).toThrow();
    else expect(tokenizer.render(messages)).toBe(text.replace('<TODAY>', today()));
  });
});
