import { en, type Key } from '../src/i18n/en';
import { ja } from '../src/i18n/ja';

const fields = (text: string) => (text.match(/\{\w+\}/g) ?? []).sort();

test.each(Object.keys(en) as Key[])('%s is said in both languages with the same fields', (key) => {
  expect(ja[key].trim()).not.toBe('');
  expect(fields(ja[key])).toEqual(fields(en[key]));
});

test('the Japanese words are Japanese', () => {
  const plain = (Object.keys(en) as Key[]).filter((key) => !/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u.test(ja[key]));
  expect(plain).toEqual([]);
});
