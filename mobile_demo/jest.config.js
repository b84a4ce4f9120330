module.exports = {
  preset: 'jest-expo/web',
  testEnvironment: 'node',
  testMatch: ['<rootDir>/tests/**/*.test.ts'],
  transformIgnorePatterns: ['node_modules/(?!(expo.*|@expo.*|react-native.*|@react-native.*|@huggingface|@noble)/)'],
};
