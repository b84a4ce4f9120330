// `embeddings.safetensors`, mapped: the twin of pipeline/embeddings/reader.py. Only the pages of rows in use become
// resident. Never built on the project's own machines: see the app's README.
import CryptoKit
import Foundation

enum EmbeddingTableError: Error {
  case cutOff(String)
  case notTable(String)
  case otherTable(String)
  case changed(String)
  case noRow(String)
}

/// Per-layer inputs of tokens. Shapes: N tokens, L layers, D values of one layer's vector.
final class EmbeddingTable {
  let model: String
  let rows: Int
  let layers: Int
  let width: Int
  /// What the model multiplies a row with when it looks it up.
  let multiplier: Float
  private let bits: Int
  private let digest: String
  private let begin: Int
  private let rowBytes: Int
  private let data: Data

  private struct Header: Decodable {
    struct Rows: Decodable {
      let dtype: String
      let shape: [Int]
      let data_offsets: [Int]
    }
    let __metadata__: [String: String]
    let rows: Rows
  }

  /// Maps the file; no row is read.
  init(path: String) throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
    guard data.count >= 8 else { throw EmbeddingTableError.cutOff("the table ends within its header") }
    let length = (0..<8).reduce(UInt64(0)) { $0 | UInt64(data[$1]) << UInt64(8 * $1) }
    guard length > 0, length <= 1 << 20 else {
      throw EmbeddingTableError.notTable("its header would be \(length) bytes long")
    }
    let begin = 8 + Int(length)
    guard data.count >= begin else { throw EmbeddingTableError.cutOff("the table ends within its header") }
    guard let header = try? JSONDecoder().decode(Header.self, from: data.subdata(in: 8..<begin)) else {
      throw EmbeddingTableError.notTable("its header is not that of a table")
    }
    let told = header.__metadata__
    guard told["format"] == "kobako-embeddings-1", let model = told["model"], let digest = told["sha256"],
      let layers = told["layers"].flatMap({ Int($0) }), let width = told["width"].flatMap({ Int($0) }),
      let bits = told["bits"].flatMap({ Int($0) }), let multiplier = told["multiplier"].flatMap({ Float($0) }),
      let rows = header.rows.shape.first, [4, 8, 16].contains(bits), multiplier.isFinite,
      [rows, layers, width].allSatisfy({ $0 > 0 && $0 < 1 << 31 }), (width * bits) % 8 == 0
    else { throw EmbeddingTableError.notTable("it does not tell the layout of its rows") }
    let record = width * bits / 8 + (bits == 16 ? 0 : 2)
    let (rowBytes, tooWide) = layers.multipliedReportingOverflow(by: record)
    let (dataBytes, tooLong) = rows.multipliedReportingOverflow(by: rowBytes)
    guard !tooWide, !tooLong, header.rows.dtype == "U8", header.rows.shape == [rows, rowBytes],
      header.rows.data_offsets == [0, dataBytes]
    else { throw EmbeddingTableError.notTable("its rows are not of \(rowBytes) bytes") }
    guard data.count - begin == dataBytes else {
      throw EmbeddingTableError.cutOff("the table has \(data.count - begin) of \(dataBytes) bytes of rows")
    }
    self.data = data
    self.begin = begin
    self.model = model
    self.digest = digest
    self.rows = rows
    self.layers = layers
    self.width = width
    self.bits = bits
    self.multiplier = multiplier
    self.rowBytes = rowBytes
  }

  /// Throws unless the rows have this shape.
  func check(layers: Int, width: Int) throws {
    guard (self.layers, self.width) == (layers, width) else {
      throw EmbeddingTableError.otherTable("rows of \(self.layers) × \(self.width), the model takes \(layers) × \(width)")
    }
  }

  /// Reads all rows and compares their digest.
  func checkDigest() throws {
    var hash = SHA256()
    for at in stride(from: begin, to: data.count, by: 1 << 20) {
      hash.update(data: data.subdata(in: at..<min(at + (1 << 20), data.count)))
    }
    let found = hash.finalize().map { String(format: "%02x", $0) }.joined()
    guard found == digest else { throw EmbeddingTableError.changed("SHA-256 \(found), not \(digest)") }
  }

  /// The rows of N tokens [N · L · D], times the multiplier. Tokens beyond the table stand for images and sounds: they
  /// have the first row, as in Gemma 3n's own code.
  func perLayerInputs(_ tokens: [Int32]) throws -> [Float16] {
    var inputs: [Float16] = []
    inputs.reserveCapacity(tokens.count * layers * width)
    for token in tokens {
      for value in try row(token < rows ? Int(token) : 0) { inputs.append(Float16(value * multiplier)) }
    }
    return inputs
  }

  /// Values [L · D] of one token, without the multiplier.
  func row(_ token: Int) throws -> [Float] {
    guard token >= 0, token < rows else {
      throw EmbeddingTableError.noRow("token \(token) has no row: the table has rows 0 to \(rows - 1)")
    }
    return data.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) -> [Float] in
      let first = begin + token * rowBytes
      if bits == 16 {
        return (0..<layers * width).map { Float(Float16(bitPattern: Self.half(bytes, first + 2 * $0))) }
      }
      let codeBytes = width * bits / 8
      var values: [Float] = []
      values.reserveCapacity(layers * width)
      for layer in 0..<layers {
        let codes = first + layer * (codeBytes + 2)
        let scale = Float(bitPattern: UInt32(Self.half(bytes, codes + codeBytes)) << 16)  // bfloat16
        for place in 0..<width { values.append(Float(code(bytes, codes, place)) * scale) }
      }
      return values
    }
  }

  /// Of two 4-bit codes in a byte the first is in the low half; shifting left and right extends its sign.
  private func code(_ bytes: UnsafeRawBufferPointer, _ codes: Int, _ place: Int) -> Int8 {
    if bits == 8 { return Int8(bitPattern: bytes[codes + place]) }
    let pair = bytes[codes + place / 2]
    return Int8(bitPattern: place % 2 == 0 ? pair << 4 : pair) >> 4
  }

  private static func half(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt16 {
    UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8
  }
}
