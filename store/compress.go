package store

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// maxPlain bounds the size of a value after decompression, in bytes.
const maxPlain = 256 << 20

// compress returns plain compressed with zstd.
func compress(plain []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	defer w.Close()
	return w.EncodeAll(plain, nil), nil
}

// decompress undoes compress.
func decompress(packed []byte) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	defer r.Close()
	plain, err := r.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return plain, nil
}
