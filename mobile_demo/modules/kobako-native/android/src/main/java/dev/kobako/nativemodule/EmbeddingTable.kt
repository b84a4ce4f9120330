// `embeddings.safetensors`, mapped: the twin of pipeline/embeddings/reader.py. Only the pages of rows in use become
// resident. Never built on the project's own machines: see the app's README.
package dev.kobako.nativemodule

import java.io.Closeable
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.MappedByteBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest
import org.json.JSONException
import org.json.JSONObject

/** [kind] is cutOff, notTable, otherTable, changed or noRow. */
class EmbeddingTableException(val kind: String, detail: String) : Exception("$kind: $detail")

/** Per-layer inputs of tokens. Shapes: N tokens, L layers, D values of one layer's vector. No row is read to open it. */
class EmbeddingTable(file: File) : Closeable {
  private class Layout(
    val model: String, val rows: Int, val layers: Int, val width: Int, val bits: Int, val multiplier: Float,
    val digest: String, val rowBytes: Int,
  )

  private val handle = RandomAccessFile(file, "r")
  private val begin: Long
  private val layout: Layout
  private val windows: List<MappedByteBuffer>
  private val rowsPerWindow: Int

  init {
    try {
      begin = 8L + headerLength()
      layout = parse(header((begin - 8).toInt()))
      val expected = layout.rows.toLong() * layout.rowBytes
      if (handle.length() - begin != expected) {
        throw EmbeddingTableException("cutOff", "the table has ${handle.length() - begin} of $expected bytes of rows")
      }
      // a buffer holds less than 2 GB
      rowsPerWindow = Int.MAX_VALUE / layout.rowBytes
      windows = (0 until layout.rows step rowsPerWindow).map { first ->
        val count = minOf(rowsPerWindow, layout.rows - first).toLong()
        val mode = FileChannel.MapMode.READ_ONLY
        val window = handle.channel.map(mode, begin + first.toLong() * layout.rowBytes, count * layout.rowBytes)
        window.order(ByteOrder.LITTLE_ENDIAN)
        window
      }
    } catch (error: Exception) {
      handle.close()
      throw error
    }
  }

  val model: String get() = layout.model

  /** Throws unless the rows have this shape. */
  fun check(layers: Int, width: Int) {
    if (layout.layers != layers || layout.width != width) {
      val found = "rows of ${layout.layers} x ${layout.width}"
      throw EmbeddingTableException("otherTable", "$found, the model takes $layers x $width")
    }
  }

  /** Reads all rows and compares their digest. */
  fun checkDigest() {
    val digest = MessageDigest.getInstance("SHA-256")
    windows.forEach { digest.update(it.duplicate()) }
    val found = digest.digest().joinToString("") { "%02x".format(it) }
    if (found != layout.digest) throw EmbeddingTableException("changed", "SHA-256 $found, not ${layout.digest}")
  }

  /**
   * The rows of N tokens [N * L * D], times the multiplier. Tokens beyond the table stand for images and sounds: they
   * have the first row, as in Gemma 3n's own code.
   */
  fun perLayerInputs(tokens: IntArray): FloatArray {
    val size = layout.layers * layout.width
    val inputs = FloatArray(tokens.size * size)
    tokens.forEachIndexed { place, token ->
      val row = row(if (token < layout.rows) token else 0)
      for (i in 0 until size) inputs[place * size + i] = row[i] * layout.multiplier
    }
    return inputs
  }

  /** Values [L * D] of one token, without the multiplier. */
  fun row(token: Int): FloatArray {
    if (token !in 0 until layout.rows) {
      throw EmbeddingTableException("noRow", "token $token has no row: the table has rows 0 to ${layout.rows - 1}")
    }
    val bytes = windows[token / rowsPerWindow]
    val first = token % rowsPerWindow * layout.rowBytes
    val values = FloatArray(layout.layers * layout.width)
    if (layout.bits == 16) {
      for (i in values.indices) values[i] = float16(bytes.getShort(first + 2 * i).toInt() and 0xffff)
      return values
    }
    val codeBytes = layout.width * layout.bits / 8
    for (layer in 0 until layout.layers) {
      val codes = first + layer * (codeBytes + 2)
      // bfloat16 is the upper half of a float32
      val scale = Float.fromBits(bytes.getShort(codes + codeBytes).toInt() shl 16)
      for (i in 0 until layout.width) values[layer * layout.width + i] = code(bytes, codes, i) * scale
    }
    return values
  }

  override fun close() = handle.close()

  /** Of two 4-bit codes in a byte the first is in the low half; shifting left and right extends its sign. */
  private fun code(bytes: ByteBuffer, codes: Int, place: Int): Int {
    if (layout.bits == 8) return bytes.get(codes + place).toInt()
    val pair = bytes.get(codes + place / 2).toInt()
    return if (place % 2 == 0) (pair shl 28) shr 28 else (pair shl 24) shr 28
  }

  private fun headerLength(): Long {
    if (handle.length() < 8) throw EmbeddingTableException("cutOff", "the table ends within its header")
    val length = java.lang.Long.reverseBytes(handle.readLong())
    if (length !in 1..(1L shl 20)) throw EmbeddingTableException("notTable", "its header would be $length bytes long")
    if (handle.length() < 8 + length) throw EmbeddingTableException("cutOff", "the table ends within its header")
    return length
  }

  private fun header(length: Int): JSONObject {
    val bytes = ByteArray(length)
    handle.readFully(bytes)
    return try {
      JSONObject(String(bytes, Charsets.UTF_8))
    } catch (error: JSONException) {
      throw EmbeddingTableException("notTable", "its header is not JSON: ${error.message}")
    }
  }

  private companion object {
    fun parse(header: JSONObject): Layout = try {
      val told = header.getJSONObject("__metadata__")
      val entry = header.getJSONObject("rows")
      val (rows, stored) = listOf(0, 1).map { entry.getJSONArray("shape").getInt(it) }
      val (layers, width, bits) = listOf("layers", "width", "bits").map { told.getString(it).toInt() }
      val multiplier = told.getString("multiplier").toFloat()
      require(told.getString("format") == "kobako-embeddings-1") { "its format is another" }
      require(bits in listOf(4, 8, 16) && width.toLong() * bits % 8 == 0L) { "$width values of $bits bits" }
      require(minOf(rows, layers, width) > 0 && multiplier.isFinite()) { "its sizes make no sense" }
      val rowBytes = layers * (width.toLong() * bits / 8 + if (bits == 16) 0 else 2)
      val end = entry.getJSONArray("data_offsets").getLong(1)
      require(entry.getString("dtype") == "U8" && stored.toLong() == rowBytes && end == rows * rowBytes) {
        "its rows are not of $rowBytes bytes"
      }
      Layout(told.getString("model"), rows, layers, width, bits, multiplier, told.getString("sha256"), stored)
    } catch (error: JSONException) {
      throw EmbeddingTableException("notTable", "it does not tell its layout: ${error.message}")
    } catch (error: IllegalArgumentException) { // NumberFormatException too
      throw EmbeddingTableException("notTable", "it does not tell its layout: ${error.message}")
    }

    /** Infinities and NaN are never written. */
    fun float16(half: Int): Float {
      val exponent = half shr 10 and 31
      val fraction = half and 1023
      val size = if (exponent == 0) Math.scalb(fraction.toFloat(), -24) else Math.scalb(1024f + fraction, exponent - 25)
      return if (half and 0x8000 != 0) -size else size
    }
  }
}
