//! Archives of others: ar, tar, deb, and their compressions.
