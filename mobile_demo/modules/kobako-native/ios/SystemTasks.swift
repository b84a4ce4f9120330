// Apple's own translator and language model, where the phone has them ready. Never built on the project's own machines.
import Foundation

#if canImport(FoundationModels)
import FoundationModels
import Translation
#endif

enum SystemTaskError: Error {
  case notReady
}

enum SystemTasks {
  private static let sentences = ["short": "one sentence", "medium": "three sentences", "long": "six sentences"]

  /// Never true for what would have to be downloaded first.
  static func ready(_ task: String, source: String, target: String) async -> Bool {
    #if canImport(FoundationModels)
    guard #available(iOS 26.0, *) else { return false }
    if task == "summarize" {
      guard case .available = SystemLanguageModel.default.availability else { return false }
      return SystemLanguageModel.default.supportsLocale(Locale(identifier: source))
    }
    let from = Locale.Language(identifier: source)
    let to = Locale.Language(identifier: target)
    return await LanguageAvailability().status(from: from, to: to) == .installed
    #else
    return false
    #endif
  }

  static func run(_ task: String, text: String, source: String, target: String, length: String) async throws -> String {
    #if canImport(FoundationModels)
    guard #available(iOS 26.0, *) else { throw SystemTaskError.notReady }
    if task == "summarize" {
      let instructions = "Summarize the text you are given in \(sentences[length] ?? "one sentence"), in its own language."
      return try await LanguageModelSession(instructions: instructions).respond(to: text).content
    }
    let session = TranslationSession(
      installedSource: Locale.Language(identifier: source), target: Locale.Language(identifier: target))
    return try await session.translate(text).targetText
    #else
    throw SystemTaskError.notReady
    #endif
  }
}
