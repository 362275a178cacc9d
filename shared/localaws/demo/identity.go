package demo

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/google/uuid"
)

// identity has the ids of organization i, in the database and in Stripe.
type identity struct {
	org      string
	customer string
	random   *rand.Rand // for the rest of the organization
}

// identityOf depends only on the seed and i, so that other organizations can refer to this one.
func identityOf(seed uint64, i int) identity {
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	return identity{org: newUUID(random), customer: newStripeID(random, "cus_", 14), random: random}
}

func newUUID(random *rand.Rand) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], random.Uint64())
	binary.BigEndian.PutUint64(id[8:], random.Uint64())
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // of RFC 9562
	return id.String()
}

func newStripeID(random *rand.Rand, prefix string, length int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := make([]byte, 0, len(prefix)+length)
	id = append(id, prefix...)
	for range length {
		id = append(id, alphabet[random.IntN(len(alphabet))])
	}
	return string(id)
}
